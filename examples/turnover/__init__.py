"""Staff turnover: will this employee leave? (binary, 30 features at the top level of a request)"""
