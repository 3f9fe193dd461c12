"""Package `training`: a population of models, trained by compiled steps on all devices.

`spec` resolves the settings of one stage, `step` is what one model does at one step, `population`
trains all members through all stages, and `progress` is what it reports; `programs`, `plan`,
`devices` and `hosts` say how that is computed. Nothing here writes a file.
"""
