"""What a checkpoint is, and how text becomes ids. No asyncio, no HTTP, no tensors."""
