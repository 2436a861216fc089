"""The study: hypotheses about derivatives and training, judged by the runs in a tracking store.

`hypotheses` reads what is claimed and states the rule of judgement; each YAML file in `hypotheses/`
was written before its runs. `parts` runs the sweeps that the hypotheses need
(`python -m pde_train.study`). `run_table` reads the finished runs of the store and marks which of
them are a pair, `published` keeps that table as a file, and `pairs` takes the differences.
`statistics` has the estimates and tests, `verdicts` applies them to every stratum of every
hypothesis, `effects` says what each factor does, and `error_budget` divides the error of finite
differences into its parts. `figures` draws, `page` writes the HTML, and `report` is the command that
does all this (`python -m pde_train.report`).

Everything is read from the store alone, so a report can be made on another machine than the runs,
by software that has no GPU: nothing in this folder imports torch or lightning. A new hypothesis is
one YAML file; a new part is one file in `conf/experiment/study/` and one entry in `parts.PARTS`.
"""
