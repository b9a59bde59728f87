"""What keeps a farm tidy: garbage collection, stale uploads, scrubbing; done by one API process at a time."""
