"""What the source decides: pure, told what happened, asked what to send next."""
