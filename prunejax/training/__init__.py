"""Package `training`: a population of models, trained by compiled steps on all devices.

`spec` resolves the settings of one stage, `step` is what one model does at one step, `population`
takes all members through all stages, `progress` is how far they are, and `forks` says which of them
are one model still; `programs`, `plan`, `devices` and `hosts` say how that is computed, and
`machine` what this process may use of the machine. Nothing here writes a file.
"""
