"""Domains other than boxes: discs, balls, polygons, what holes or corners leave of them, unions, all of them in time.

A domain says which points it contains, and describes the pieces of its boundary as images of unit cubes, so that every
sampler serves each of them (`pde_train.samplers.base`).
"""

from pde_train.domains.combined import Away, Difference, Pinned, Union
from pde_train.domains.in_time import InTime
from pde_train.domains.shapes import Ball, Disc, Polygon

__all__ = ["Away", "Ball", "Difference", "Disc", "InTime", "Pinned", "Polygon", "Union"]
