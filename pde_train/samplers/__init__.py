"""Samplers: how training points are drawn. One file and one YAML file in `conf/sampler/` each.

`base.Sampler` draws the points of the interior and of every region of faces, with outward normals,
and with the opposite points of a periodic region. A subclass implements `fill`, which draws points
in a box of any dimension: the box itself for the interior, and the box of one dimension less for a
face.

A sampler with a method `adapted` draws later points by the residual of the model, and `mini_batch`
gives each optimiser step some of the points.

All randomness comes from a NumPy generator that the caller passes, and points are drawn in float64
before, and independently of, the choice of differentiator and precision. Two runs of one seed
therefore train on the same points, unless these follow the residual, and a resumed run goes on with
the points that it would have drawn. To add a sampler, write a frozen dataclass with `fill` here and its YAML file.
"""
