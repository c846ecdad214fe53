"""`edge-runtime bench`: what a bundle costs on this machine, engine by engine."""
