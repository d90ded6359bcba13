"""What is asked: problems, how their answers are read and compared, where they come from."""
