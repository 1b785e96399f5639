"""HTTP: routes, schemas, problems. Nothing below this package knows that HTTP exists."""
