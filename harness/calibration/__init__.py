"""Is the instrument itself right? Simulated decoders, correct and broken, judged by the thousand."""
