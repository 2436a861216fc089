"""References: computed solutions of PDEs without a closed form, each with its own measured error.

A PDE gives one by its method `reference(x)`, which computes the unknowns at points twice, at two resolutions, and calls
their difference the error (`base.certified`). `fourier.Semilinear` solves equations that are periodic in space,
`fundamental.Screened` Laplace's equation and the screened one in polygons without discs, and `cavity.Cavity` the flow
under a moving lid.
"""
