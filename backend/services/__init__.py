"""What Aperta does, free of HTTP and of concrete adapters."""
