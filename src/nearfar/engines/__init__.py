"""Engine classes: token ids in, float32 out. No text, no asyncio, no HTTP."""
