"""One recording on its way from samples to rows."""
