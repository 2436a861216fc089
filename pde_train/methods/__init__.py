"""Ways of finding the parameters of a model, one file and one YAML file (`conf/method/`) each.

`Method.fit` gets a problem, a record, diagnostics and the run's folder, and changes the parameters of the model:
`gradient_descent` by a torch optimiser (see `pde_train.training`), `least_squares` by one SVD where the model is linear
in its parameters, `newton_least_squares` by one for each step where the equations are not linear, and `probe` not at
all, as it measures a model as it is. To add one, derive a frozen dataclass from
`pde_train.methods.base.Method` and write its YAML file.
"""
