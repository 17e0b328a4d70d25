"""Data sets for training, as torchgeo's: scene pairs on one grid, folders of chips, and lists of classes."""
