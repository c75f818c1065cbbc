"""What happens around the training steps; callbacks read the method's Output and never its insides."""
