"""What a destination keeps on disk, so that another one can go on with its guest."""
