"""What can go wrong, tried: run.py starts the cases, each module holds those of one kind."""
