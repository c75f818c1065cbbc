"""What can be known before a run begins: of this installation, of the data, of the network on this machine."""
