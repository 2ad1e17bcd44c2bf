# Completion of memchargectl in bash: to be installed as /usr/share/bash-completion/completions/memchargectl.
# The code comes from the program itself, so that both are always of one version.
source <(COMPLETE=bash memchargectl 2>/dev/null)
