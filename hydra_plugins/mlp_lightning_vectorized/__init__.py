"""The launcher and the sweeper that train the runs of a sweep together."""
