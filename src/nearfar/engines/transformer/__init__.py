"""What the Torch and OpenVINO engines share: transformers modules and their heads."""
