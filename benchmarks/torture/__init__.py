"""What `benchmarks.storage_torture` is made of: servers that are killed at chosen points, disks that fail, an audit."""
