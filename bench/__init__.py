"""The figures of `make bench`: each measured beside a peer, in the same run, on the machine at hand."""
