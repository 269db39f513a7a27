"""Employee attrition: will this employee leave within the year? (binary, 43 features, nine rules)"""
