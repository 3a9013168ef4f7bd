//! `derive(State)`: the named states of a machine.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{Data, DeriveInput, Error, Fields, Ident, LitStr, Path, Result, Token, Variant};

use crate::attribute::{self, Key};

/// Writes the implementation.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let mut facade: Option<Path> = None;
    attribute::read_all(&input.attrs, "state", |key, input| match key {
        Key::Word(word) if word == "crate" => attribute::keep(
            &mut facade,
            attribute::value(input)?,
            "`crate`",
            word.span(),
        ),
        Key::Word(word) => Err(attribute::unknown(&word, "`crate = path`")),
        Key::Text(text) => Err(Error::new(
            text.span(),
            "a name belongs to one state: put `#[state(\"..\")]` on a variant",
        )),
    })?;
    let variants = variants(input)?;
    let settings = settings(variants)?;
    let names: Vec<_> = settings.iter().map(|one| &one.name).collect();
    let variants: Vec<_> = variants.iter().map(|variant| &variant.ident).collect();
    let inner = variants.iter().zip(&settings).filter_map(|(variant, one)| {
        let outer = one.within.as_ref()?;
        Some(quote!(Self::#variant => ::core::option::Option::Some(Self::#outer),))
    });
    let inner: Vec<_> = inner.collect();
    let within = (!inner.is_empty()).then(|| {
        quote! {
            fn within(self) -> ::core::option::Option<Self> {
                match self {
                    #(#inner)*
                    _ => ::core::option::Option::None,
                }
            }
        }
    });
    let aliases = aliases(&variants, &settings);
    let ident = &input.ident;
    let root = attribute::root(facade.as_ref());
    Ok(quote! {
        #[automatically_derived]
        impl #root::SagaState for #ident {
            const ALL: &'static [Self] = &[#(Self::#variants),*];

            fn name(self) -> &'static str {
                match self {
                    #(Self::#variants => #names,)*
                }
            }

            #aliases
            #within
        }
    })
}

/// Writes the method that lists former names, where there are some.
fn aliases(variants: &[&Ident], settings: &[Settings]) -> Option<TokenStream> {
    let arms = variants.iter().zip(settings).map(|(variant, one)| {
        let aliases = &one.aliases;
        quote!(Self::#variant => &[#(#aliases),*],)
    });
    let is_renamed = settings.iter().any(|one| !one.aliases.is_empty());
    is_renamed.then(|| {
        quote! {
            fn aliases(self) -> &'static [&'static str] {
                match self {
                    #(#arms)*
                }
            }
        }
    })
}

fn variants(input: &DeriveInput) -> Result<&Punctuated<Variant, Token![,]>> {
    let Data::Enum(data) = &input.data else {
        let fact = "the states of a machine are the variants of an enum; for data derive `Saga`";
        return Err(Error::new(input.ident.span(), fact));
    };
    if !input.generics.params.is_empty() {
        let fact = "the states of a machine are fixed, so their enum cannot be generic";
        return Err(Error::new_spanned(&input.generics, fact));
    }
    if data.variants.is_empty() {
        let fact = "a machine has at least one state; add a variant";
        return Err(Error::new(input.ident.span(), fact));
    }
    let with_fields = data
        .variants
        .iter()
        .find(|variant| !matches!(variant.fields, Fields::Unit));
    with_fields.map_or(Ok(&data.variants), |variant| {
        let fact = "a state is a name without fields; what belongs to the instance is a field of \
                    the saga's data";
        Err(Error::new_spanned(&variant.fields, fact))
    })
}

/// What is said of one variant.
struct Settings {
    name: LitStr,
    aliases: Vec<LitStr>,
    within: Option<Ident>,
}

/// Returns what is said of each variant.
fn settings(variants: &Punctuated<Variant, Token![,]>) -> Result<Vec<Settings>> {
    let mut taken = HashSet::new();
    let mut all = Vec::new();
    for variant in variants {
        let one = read(variant)?;
        attribute::check_name(&one.name, 100)?;
        if !taken.insert(one.name.value()) {
            let name = one.name.value();
            let fact = format!("two states are named `{name}`; name one `#[state(\"..\")]`");
            return Err(Error::new(variant.ident.span(), fact));
        }
        for alias in &one.aliases {
            attribute::check_name(alias, 100)?;
        }
        if let Some(outer) = &one.within
            && !variants.iter().any(|other| other.ident == *outer)
        {
            let fact = format!("there is no state `{outer}`; name a variant of this enum");
            return Err(Error::new(outer.span(), fact));
        }
        all.push(one);
    }
    for alias in all.iter().flat_map(|one| &one.aliases) {
        if !taken.insert(alias.value()) {
            let fact = format!(
                "two states answer to `{}`; give the former name to one",
                alias.value()
            );
            return Err(Error::new(alias.span(), fact));
        }
    }
    Ok(all)
}

fn read(variant: &Variant) -> Result<Settings> {
    let (mut given, mut within, mut aliases) = (None, None, Vec::new());
    attribute::read_all(&variant.attrs, "state", |key, input| match key {
        Key::Text(name) => {
            let span = name.span();
            attribute::keep(&mut given, name, "the name", span)
        }
        Key::Word(word) if word == "within" => {
            let outer = attribute::value(input)?;
            attribute::keep(&mut within, outer, "`within`", word.span())
        }
        Key::Word(word) if word == "alias" => {
            aliases.push(attribute::value(input)?);
            Ok(())
        }
        Key::Word(word) => Err(attribute::unknown(
            &word,
            "the name (`#[state(\"paid\")]`), `alias = \"former-name\"` and `within = Warehouse`",
        )),
    })?;
    let derived = || LitStr::new(&kebab_case(&variant.ident), variant.ident.span());
    Ok(Settings {
        name: given.unwrap_or_else(derived),
        aliases,
        within,
    })
}

/// Turns `AwaitingPayment` into `awaiting-payment` and `HTTPDone` into `http-done`.
fn kebab_case(ident: &Ident) -> String {
    let letters: Vec<char> = ident.unraw().to_string().chars().collect();
    let mut name = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(at + 1);
        let begins_word = letter.is_uppercase()
            && before.is_some_and(|before| {
                let ends_acronym = before.is_uppercase() && after.is_some_and(|a| a.is_lowercase());
                before.is_lowercase() || before.is_numeric() || ends_acronym
            });
        if begins_word {
            name.push('-');
        }
        match letter {
            '_' => name.push('-'),
            letter => name.extend(letter.to_lowercase()),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    #[test]
    fn variants_become_words_with_hyphens() {
        let cases = [
            ("Paid", "paid"),
            ("AwaitingPayment", "awaiting-payment"),
            ("HTTPDone", "http-done"),
            ("ReadyForHTTP", "ready-for-http"),
            ("Step2Done", "step2-done"),
            ("A", "a"),
            ("Two_Words", "two-words"),
        ];
        for (variant, name) in cases {
            assert_eq!(kebab_case(&Ident::new(variant, Span::call_site())), name);
        }
    }

    #[test]
    fn a_raw_identifier_loses_its_prefix() {
        assert_eq!(
            kebab_case(&Ident::new_raw("Final", Span::call_site())),
            "final"
        );
    }
}
