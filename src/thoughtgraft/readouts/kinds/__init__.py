"""The readouts: one file each, with its `READOUT`, found and called by the file's name."""
