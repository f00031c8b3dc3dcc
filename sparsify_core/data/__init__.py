"""From a dataset's name to fixed-length token sequences: the ones to train on and the ones held out."""
