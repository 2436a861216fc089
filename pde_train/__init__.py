"""What does the way of taking derivatives do to the training of neural networks on differential equations?"""

__version__ = "0.1.0"
