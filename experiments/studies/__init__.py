"""Studies: functions that return experiments, each in a module of the same name.

`--study=criteria` is the function `criteria` of `experiments/studies/criteria.py`;
`--study=my_module:my_study` is a function of a module that is found from the current directory.
"""
