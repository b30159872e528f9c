"""Benchmark of feature compressors: accuracy against coded bits.

features    two pretrained networks' features of two data sets
methods     the compressors
evaluation  bits, accuracy, neighbours and times of a compressor
summary     bits at equal accuracy, tables and figures
"""
