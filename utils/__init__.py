"""The experiment side: data, stages, runs, configuration, figures and tables."""
