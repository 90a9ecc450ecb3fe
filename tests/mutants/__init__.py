"""`make mutants`: would the tests notice if a line of the core said something else?"""
