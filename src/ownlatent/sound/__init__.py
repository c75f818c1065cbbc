"""Sound: from the bytes of a file to a waveform, and from that to a log-mel spectrogram."""
