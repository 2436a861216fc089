"""Optimisers that torch does not have; those that it has are named in conf/optimizer by their torch classes."""
