"""Toy data, tiny experiments, servers and clusters that tests share."""
