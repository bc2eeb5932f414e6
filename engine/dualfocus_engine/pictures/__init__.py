"""Pictures: decoded, fitted to the encoder, cropped, and kept by content."""
