"""Before a long run: does everything that it will need work, on this machine and with this corpus?"""
