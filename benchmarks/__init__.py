"""Speed against PyTorch; see README.md in this directory."""
