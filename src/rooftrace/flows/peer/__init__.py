"""What other tools have made of the same scenes, as files, to be judged as a model is."""
