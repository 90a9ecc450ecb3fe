"""Where memory lives: the source's image, and the guest's memory at the destination."""
