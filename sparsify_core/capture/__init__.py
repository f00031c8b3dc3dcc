"""From a language model to the activations of its hookpoints."""
