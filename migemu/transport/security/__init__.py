"""Who may come in: TLS, pre-shared keys, the handshake before the first message."""
