"""Benchmark of feature compressors: accuracy against coded bits.

features    of two pretrained networks on two data sets
methods     the compressors
evaluation  of a compressor: bits, accuracy, neighbours, times
summary     bits at equal accuracy, tables and figures
"""
