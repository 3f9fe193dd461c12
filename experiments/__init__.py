"""The registry of experiments, the presets, the published numbers, and the command line."""
