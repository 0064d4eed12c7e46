"""How the embedded model's parts are built, trained and written down; scripts/train_tiny.py is the command."""
