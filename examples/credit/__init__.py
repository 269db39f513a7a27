"""Credit scoring: will this applicant default? (binary, 30 nullable numbers, a threshold from costs)"""
