//! `derive(Saga)`: the data of one business process.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::ParseStream;
use syn::{Data, DeriveInput, Error, LitInt, LitStr, Path, Result, Type};

use crate::attribute::{self, Key};

const KNOWN: &str = "the name (`\"shipping-policy\"`), `key = Uuid`, `state = Stage`, `version = 1`, \
                     `upcast = function` and `crate = path`";

/// What `#[saga(..)]` says.
#[derive(Default)]
struct Settings {
    name: Option<LitStr>,
    key: Option<Type>,
    state: Option<Type>,
    version: Option<LitInt>,
    upcast: Option<Path>,
    facade: Option<Path>,
}

/// Writes the implementation.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let mut settings = Settings::default();
    attribute::read_all(&input.attrs, "saga", |key, input| settings.read(key, input))?;
    let ident = &input.ident;
    if !matches!(input.data, Data::Struct(_)) {
        let fact = "a saga's data is a struct; for an enum of states derive `State`";
        return Err(Error::new(ident.span(), fact));
    }
    if !input.generics.params.is_empty() {
        let fact = "the data of a saga cannot be generic; implement `Saga` by hand for each \
                    concrete type";
        return Err(Error::new_spanned(&input.generics, fact));
    }
    let key = settings.key.as_ref().ok_or_else(|| {
        let fact = "name the type of the key that finds an instance: `#[saga(key = Uuid)]`";
        Error::new(ident.span(), fact)
    })?;
    let root = attribute::root(settings.facade.as_ref());
    let state = settings
        .state
        .as_ref()
        .map_or_else(|| quote!(()), |state| quote!(#state));
    let version = settings
        .version
        .as_ref()
        .map(|version| quote!(const SCHEMA_VERSION: i32 = #version;));
    let upcast = settings.upcast.as_ref().map(|upcast| {
        quote! {
            fn upcast(from: i32, data: #root::Value) -> #root::Result<#root::Value> {
                #upcast(from, data)
            }
        }
    });
    let name = settings.name.as_ref().map(|name| {
        quote! {
            #[automatically_derived]
            impl #root::NamedSaga for #ident {
                const NAME: &'static str = #name;
            }
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #root::Saga for #ident {
            type Key = #key;
            type State = #state;
            #version
            #upcast
        }
        #name
    })
}

impl Settings {
    fn read(&mut self, key: Key, input: ParseStream<'_>) -> Result<()> {
        let word = match key {
            Key::Text(name) => {
                attribute::check_name(&name, 100)?;
                let span = name.span();
                return attribute::keep(&mut self.name, name, "the name", span);
            }
            Key::Word(word) => word,
        };
        let span = word.span();
        match word.to_string().as_str() {
            "key" => attribute::keep(&mut self.key, attribute::value(input)?, "`key`", span),
            "state" => attribute::keep(&mut self.state, attribute::value(input)?, "`state`", span),
            "version" => {
                let version = attribute::version(input)?;
                attribute::keep(&mut self.version, version, "`version`", span)
            }
            "upcast" => {
                attribute::keep(&mut self.upcast, attribute::value(input)?, "`upcast`", span)
            }
            "crate" => attribute::keep(&mut self.facade, attribute::value(input)?, "`crate`", span),
            _ => Err(attribute::unknown(&word, KNOWN)),
        }
    }
}
