"""What the destination decides: pure, told what happened, answering with effects."""
