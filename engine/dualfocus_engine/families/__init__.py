"""What differs between model families: profiles and how a box is written."""
