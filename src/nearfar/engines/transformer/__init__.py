"""A checkpoint as torch modules: what the Torch engine runs and OpenVINO converts. Importing it imports torch."""
